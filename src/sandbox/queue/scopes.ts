/** Scope expressions and roles, as auth and the API library treat them. */
import type { ScopeExpression } from 'taskcluster-lib-scopes';
import { normalizeScopeSet, patternMatch, scopeCompare } from 'taskcluster-lib-scopes';
import type { ScopeTemplate } from './reference.ts';

/** Values for a scope template; lists are for its loops. */
export type ScopeParams = Readonly<Record<string, string | number | readonly string[] | undefined>>;

/** Role ids (a trailing `*` makes a prefix) with their scopes. */
export type Roles = Readonly<Record<string, readonly string[]>>;

function substitute(template: string, params: ScopeParams): string {
  return template.replace(/<(\w+)>/g, (_text, name: string) => String(params[name] ?? ''));
}

function renderAll(templates: readonly ScopeTemplate[], params: ScopeParams): ScopeExpression[] {
  return templates.flatMap((template) => {
    if (typeof template === 'object' && 'for' in template) {
      const values = params[template.in];
      const list = Array.isArray(values) ? values : [];
      return list.map((value: string) => substitute(template.each, { ...params, [template.for]: value }));
    }
    return [renderTemplate(template, params)];
  });
}

/** Fills in a template's parameters and loops. */
export function renderTemplate(template: ScopeTemplate, params: ScopeParams): ScopeExpression {
  if (typeof template === 'string') {
    return substitute(template, params);
  }
  if ('AnyOf' in template) {
    return { AnyOf: renderAll(template.AnyOf, params) };
  }
  return { AllOf: renderAll('AllOf' in template ? template.AllOf : [template], params) };
}

/** The names of all parameters of a template. */
export function templateParams(template: ScopeTemplate): string[] {
  if (typeof template === 'string') {
    return [...template.matchAll(/<(\w+)>/g)].flatMap((match) => match[1] ?? []);
  }
  if ('for' in template) {
    return [template.in, ...templateParams(template.each).filter((name) => name !== template.for)];
  }
  return ('AnyOf' in template ? template.AnyOf : template.AllOf).flatMap(templateParams);
}

/** The scopes that a role gives to whoever has `scope`; a `<..>` stands for what the role's `*` matched. */
function scopesOfRole(roleId: string, scopes: readonly string[], scope: string): readonly string[] {
  const roleScope = `assume:${roleId}`;
  if (!roleId.endsWith('*')) {
    return patternMatch(scope, roleScope) ? scopes : [];
  }
  const prefix = roleScope.slice(0, -1);
  if (scope.startsWith(prefix)) {
    return scopes.map((granted) => parametrized(granted, scope.slice(prefix.length)));
  }
  // A pattern that ends within the prefix matches whatever the role's `*` does.
  return patternMatch(scope, prefix) ? scopes.map((granted) => parametrized(granted, '*')) : [];
}

/** A parameter that is itself a pattern ends the scope: nothing can follow its `*`. */
function parametrized(granted: string, parameter: string): string {
  const [before = '', after] = granted.split('<..>');
  if (after === undefined) {
    return granted;
  }
  return parameter.endsWith('*') ? before + parameter : before + parameter + granted.slice(before.length + 4);
}

/** The scopes together with all that their `assume:` scopes imply, sorted and without what others cover. */
export function expandScopes(scopes: readonly string[], roles: Roles): string[] {
  const all = new Set(scopes);
  // A Set may grow while it is walked, so scopes that roles add are expanded in their turn.
  for (const scope of all) {
    for (const [roleId, granted] of Object.entries(roles)) {
      for (const added of scopesOfRole(roleId, granted, scope)) {
        all.add(added);
      }
    }
  }
  return normalizeScopeSet([...all].sort(scopeCompare));
}
