/** The project's Dockerfile, instruction by instruction. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

export interface Instruction {
  /** In capitals. */
  readonly name: string;
  readonly rest: string;
}

export const DOCKERFILE = readFileSync(path.resolve(import.meta.dirname, '../../Dockerfile'), 'utf8');

/** What `USER` gives in numbers, as whoever starts an image can check it. */
export interface NumericUser {
  readonly uid: string;
  readonly gid: string;
}

/** @returns undefined for a name, and where the group is left to the base image */
export function numericUser(text: string): NumericUser | undefined {
  const [, uid, gid] = /^(\d+):(\d+)$/.exec(text) ?? [];
  return uid === undefined || gid === undefined ? undefined : { uid, gid };
}

export function instructionsOf(dockerfile: string): readonly Instruction[] {
  return dockerfile
    .replace(/^\s*#.*\n/gm, '')
    .replace(/\\\n/g, ' ')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [name = '', ...rest] = line.trim().split(/\s+/);
      return { name: name.toUpperCase(), rest: rest.join(' ') };
    });
}
