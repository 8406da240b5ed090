/** What the image's Dockerfile promises, without building it. */
import { expect, it } from '@jest/globals';
import { DOCKERFILE, type Instruction, instructionsOf, numericUser } from '../support/dockerfile.ts';

/** What changes nothing in the image's file system. */
const HARMLESS = new Set(['EXPOSE', 'ENTRYPOINT', 'CMD', 'LABEL', 'STOPSIGNAL', 'HEALTHCHECK']);
const USER = 'USER 1000:1000';
const SECRET = /pass|secret|token|key|credential|auth|url|[a-z]:\/\//i;

/** The user `node` of the base image, in numbers: Kubernetes takes no name's word for it that it is not root. */
function isNode(text: string): boolean {
  const user = numericUser(text);
  return user?.uid === '1000' && user.gid === '1000';
}

/** What is wrong with a Dockerfile, in a word each. */
function problemsOf(dockerfile: string): readonly string[] {
  const all = instructionsOf(dockerfile);
  const last = all.slice(all.findLastIndex(({ name }) => name === 'FROM'));
  const user = last.findLastIndex(({ name }) => name === 'USER');
  const entry = last.findIndex(({ name }) => name === 'ENTRYPOINT');
  const isSecret = ({ name, rest }: Instruction) => (name === 'ARG' || name === 'ENV') && SECRET.test(rest);
  const isWhole = ({ name, rest }: Instruction) => /^(COPY|ADD)$/.test(name) && /^(--\S+ )*\.\/? /.test(rest);
  return [
    ...(isNode(last[user]?.rest ?? '') ? [] : ['user']),
    ...(user >= 0 && user < entry ? [] : ['order']),
    ...(last.slice(user + 1).every(({ name }) => HARMLESS.has(name)) ? [] : ['writes']),
    ...(all.some(isSecret) ? ['secret'] : []),
    ...(all.some(isWhole) ? ['whole folder'] : []),
  ];
}

it('the program runs as a user who could write none of it, and no secret is in the image', () => {
  expect(problemsOf(DOCKERFILE)).toEqual([]);
});

it.each<[string, (dockerfile: string) => string]>([
  ['user', (text) => text.replace(USER, 'USER root')],
  ['user', (text) => text.replace(USER, 'USER node')],
  ['user', (text) => text.replace(USER, 'USER 1000')],
  ['user', (text) => text.replace(USER, 'USER 1000:0')],
  ['user', (text) => text.replace('ENTRYPOINT', 'USER 0\nENTRYPOINT')],
  ['order', (text) => `${text.replace(`${USER}\n`, '')}${USER}\n`],
  ['writes', (text) => `${text}RUN chmod -R a+w /app\n`],
  ['writes', (text) => text.replace(USER, `${USER}\nCOPY --chown=node src \\\n  src`)],
  ['secret', (text) => text.replace(USER, `ARG NPM_TOKEN\n${USER}`)],
  ['secret', (text) => text.replace('NODE_ENV=production', 'NODE_ENV=production DATABASE_URL=x')],
  ['whole folder', (text) => text.replace('COPY migrations migrations', 'COPY . .')],
])('what would be wrong is seen: %s', (problem, change) => {
  expect(change(DOCKERFILE)).not.toBe(DOCKERFILE);
  expect(problemsOf(change(DOCKERFILE))).toContain(problem);
});
