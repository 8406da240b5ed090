/** What the bridge uses of taskcluster-lib-scopes, which ships without types. */
declare module 'taskcluster-lib-scopes' {
  export type ScopeExpression = string | { AnyOf: ScopeExpression[] } | { AllOf: ScopeExpression[] };
  /** Whether a set of (fully expanded) scopes satisfies an expression; a trailing `*` in a held scope is a prefix. */
  export function satisfiesExpression(scopes: string[], expression: ScopeExpression): boolean;
}
