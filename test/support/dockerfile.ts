/** The project's Dockerfile, instruction by instruction. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

export interface Instruction {
  /** In capitals. */
  readonly name: string;
  readonly rest: string;
}

export const DOCKERFILE = readFileSync(path.resolve(import.meta.dirname, '../../Dockerfile'), 'utf8');

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
