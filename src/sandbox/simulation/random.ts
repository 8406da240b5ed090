/** Chance, from a seed: the same seed gives the same numbers on every machine. */

export interface Random {
  /** Uniform in [0, 1). */
  next(): number;
  /** A whole number, both ends included. */
  int(min: number, max: number): number;
  /** True with this probability. */
  chance(probability: number): boolean;
  /** @throws if there is nothing to pick from */
  pick<T>(values: readonly T[]): T;
  /** One of the keys, each as likely as its weight says. */
  weighted<K extends string>(weights: Readonly<Record<K, number>>): K;
}

/** sfc32: small, fast, and good enough to fool nobody but a cryptographer. `stream` tells uses of one seed apart. */
export function createRandom(seed: number, stream: string): Random {
  let [a, b, c, d] = [seed | 0, hash(stream), 0x9e3779b9, 1];

  function next(): number {
    const sum = (((a + b) | 0) + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 4294967296;
  }
  for (let warm = 0; warm < 12; warm += 1) {
    next();
  }

  function weighted<K extends string>(weights: Readonly<Record<K, number>>): K {
    const entries = Object.entries<number>(weights) as [K, number][];
    let left = next() * entries.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [key, weight] of entries) {
      left -= weight;
      if (left < 0) {
        return key;
      }
    }
    return pick(entries)[0];
  }

  function pick<T>(values: readonly T[]): T {
    const value = values[Math.floor(next() * values.length)];
    if (value === undefined) {
      throw new Error('nothing to pick from');
    }
    return value;
  }

  return {
    next,
    int: (min, max) => min + Math.floor(next() * (max - min + 1)),
    chance: (probability) => next() < probability,
    pick,
    weighted,
  };
}

/** FNV-1a. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (const char of text) {
    value = Math.imul(value ^ (char.codePointAt(0) ?? 0), 0x01000193);
  }
  return value | 0;
}
