/** What the emulated queue uses of packages that ship without types. */
declare module 'taskcluster-client/src/apis.js' {
  /** The references of all services, as their deployments publish them. */
  const apis: Readonly<Record<string, { readonly reference: unknown }>>;
  // biome-ignore lint/style/noDefaultExport: it is how that module exports them
  export default apis;
}

declare module 'taskcluster-lib-scopes' {
  /** What of an expression the scopes do not satisfy; null: nothing. */
  export function removeGivenScopes(scopes: string[], expression: ScopeExpression): ScopeExpression | null;
  /** Drops what other scopes of the (sorted) set cover. */
  export function normalizeScopeSet(scopes: string[]): string[];
  export function scopeCompare(a: string, b: string): number;
  export function patternMatch(pattern: string, scope: string): boolean;
}
