/** Small seeded generators (mulberry32): one seed gives one sequence. */

export interface Random {
  /** In [0, 1). */
  next(): number;
  /** A whole number from `min` to `max`. */
  between(min: number, max: number): number;
  pick<T>(list: readonly [T, ...T[]]): T;
}

export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  function next(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  }
  const between = (min: number, max: number) => min + Math.floor(next() * (max - min + 1));
  return { next, between, pick: (list) => list[between(0, list.length - 1)] ?? list[0] };
}

/** Streams of one seed, by name: what is drawn from one changes nothing in the others. */
export type Streams = (name: string) => Random;

export function createStreams(seed: number): Streams {
  return (name) => {
    let mixed = 0x811c9dc5;
    for (const letter of `${seed}/${name}`) {
      mixed = Math.imul(mixed ^ (letter.codePointAt(0) ?? 0), 0x01000193);
    }
    return createRandom(mixed);
  };
}
