/** How the demo shows itself: a block that is redrawn on a terminal, plain lines anywhere else, and a table at the end. */
import { stripVTControlCharacters } from 'node:util';

export interface Row {
  readonly name: string;
  readonly builder: string;
  /** The state of each run, oldest first. */
  readonly runs: readonly string[];
}

export interface Show {
  say(text: string): void;
  /** Called again and again; shows what has changed. */
  update(rows: readonly Row[]): void;
  table(head: readonly string[], rows: readonly (readonly string[])[]): void;
}

type Output = Pick<NodeJS.WriteStream, 'write'> & { readonly isTTY?: boolean; readonly columns?: number };

const COLOURS = { green: 32, red: 31, yellow: 33, grey: 90 } as const;

export function createShow(out: Output, { startedAt, hasColour }: { startedAt: number; hasColour: boolean }): Show {
  const shown = new Map<string, string>();
  let drawn = 0;
  const paint = (colour: keyof typeof COLOURS, text: string) =>
    hasColour ? `\u001B[${COLOURS[colour]}m${text}\u001B[0m` : text;

  function seconds(): string {
    return `${((Date.now() - startedAt) / 1000).toFixed(1)}s`.padStart(6);
  }

  function painted(state: string): string {
    if (state.startsWith('completed')) {
      return paint('green', state);
    }
    if (state === 'pending' || state === 'running') {
      return paint('yellow', state);
    }
    return state === 'waiting' ? paint('grey', state) : paint('red', state);
  }

  function describe(row: Row): string {
    return row.runs.length === 0 ? painted('waiting') : row.runs.map(painted).join(' > ');
  }

  function redraw(rows: readonly Row[]): void {
    const up = drawn > 0 ? `\u001B[${drawn}A` : '';
    const lines = rows.map((row) => `\u001B[2K  ${row.name.padEnd(16)} ${row.builder.padEnd(24)} ${describe(row)}`);
    out.write(`${up}${lines.join('\n')}\n`);
    drawn = rows.length;
  }

  function printChanges(rows: readonly Row[]): void {
    for (const row of rows) {
      const text = describe(row);
      if (shown.get(row.name) !== text && row.runs.length > 0) {
        shown.set(row.name, text);
        out.write(`${seconds()}  ${row.name.padEnd(16)} ${text}\n`);
      }
    }
  }

  return {
    say(text) {
      out.write(`${text}\n`);
      drawn = 0;
    },
    update: (rows) => (out.isTTY ? redraw(rows) : printChanges(rows)),
    table(head, rows) {
      const all = [head, ...rows];
      const widths = head.map((_, index) => Math.max(...all.map((row) => visibleLength(row[index] ?? ''))));
      const line = (row: readonly string[]) =>
        row
          .map((cell, index) => cell + ' '.repeat((widths[index] ?? 0) - visibleLength(cell)))
          .join('  ')
          .trimEnd();
      out.write(`\n${line(head)}\n${widths.map((width) => '-'.repeat(width)).join('  ')}\n`);
      for (const row of rows) {
        out.write(`${line(row)}\n`);
      }
    },
  };
}

function visibleLength(text: string): number {
  return stripVTControlCharacters(text).length;
}
