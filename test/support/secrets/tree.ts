/** Values within plain objects, by their path. */

export function valueIn(tree: unknown, [key, ...rest]: readonly string[]): unknown {
  return key === undefined ? tree : valueIn(Reflect.get(Object(tree), key), rest);
}

/** A copy with another value there; undefined takes the key away. */
export function setIn(tree: object, [key = '', ...rest]: readonly string[], value: unknown): object {
  const { [key]: old, ...others }: Record<string, unknown> = { ...tree };
  const next = rest.length === 0 ? value : setIn(Object(old), rest, value);
  return next === undefined ? others : { ...others, [key]: next };
}
