/** Texts of others, where a terminal or a reader's eye would take a part of them for something else. */

/** Control characters, invisible ones, those that turn the direction, and halves of characters. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** DEL, and all that is not ASCII, by halves of characters where they have two. */
export const NOT_ASCII = /[\u007f-\uffff]/g;

/** The text with these characters as JSON would escape them: of JSON, still the same JSON. */
export function plain(text: string, characters: RegExp = INVISIBLE): string {
  return text.replace(characters, (char) =>
    [...Array(char.length).keys()].map((at) => `\\u${char.charCodeAt(at).toString(16).padStart(4, '0')}`).join(''),
  );
}

/** How long the text is with all that is not ASCII escaped so: then it has as many bytes. */
export function escapedSize(text: string): number {
  // Without a list of them, which of a text of some MB would have millions.
  return text.length + 5 * (text.length - text.replace(NOT_ASCII, '').length);
}

/** The text as `plain` has it, but of one whose lines are its author's own. */
export function plainLines(text: string): string {
  return text
    .split('\n')
    .map((line) => plain(line))
    .join('\n');
}
