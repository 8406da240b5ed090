/** The search for secrets finds them: what it does not find would pass for safe. */
import { describe, expect, it } from '@jest/globals';
import { leaksIn, plant } from '../support/secrets/marks.ts';

const secret = plant('pulse');
const other = plant('database');
const { value, mark } = secret;
const base64 = (text: string) => Buffer.from(text).toString('base64');

const DISGUISES: readonly (readonly [string, string])[] = [
  ['as it is', value],
  ['its mark alone', mark],
  ['in a URL', `amqp://u:${encodeURIComponent(value)}@host/`],
  ['in JSON', JSON.stringify({ password: value })],
  ['in JSON within JSON', JSON.stringify(JSON.stringify({ password: value }))],
  ['in SQL', `'${value.replaceAll("'", "''")}'`],
  ['hexadecimal', Buffer.from(value).toString('hex')],
  ['base64', base64(value)],
  ['base64url', Buffer.from(value).toString('base64url')],
  ...['', 'u', 'us', 'use', 'user'].map(
    (user) => [`base64 of basic auth for "${user}"`, base64(`${user}:${value}`)] as const,
  ),
  ...['', 'x', 'xy'].map(
    (before) => [`base64 behind "${before}" and before more`, base64(`${before}${mark}yz`)] as const,
  ),
];

describe('a secret is found', () => {
  it.each(DISGUISES)('%s', (_how, form) => {
    const leaks = leaksIn({ log: `before ${form} behind`, elsewhere: 'nothing' }, [secret, other]);
    expect(new Set(leaks.map(({ where, secret: name }) => `${where} ${name}`))).toEqual(new Set(['log pulse']));
    expect(leaks[0]?.around).toContain('before');
  });
});

it('nothing is found where nothing is', () => {
  const again = plant('pulse');
  const text = DISGUISES.map(([, form]) => form).join('\n');
  expect(leaksIn({ log: text, empty: '' }, [again, other])).toEqual([]);
});
