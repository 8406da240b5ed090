/** What answers of the right shape may have in them all the same. */
import fc from 'fast-check';

export const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.constantFrom('__proto__', 'constructor', '\0', '\ud800', '\r\nSet-Cookie: a=b', '../../x', 'javascript:alert(1)'),
);
/** Anything that JSON can hold. */
export const value = fc.oneof(fc.jsonValue({ maxDepth: 3 }), text);
