import { afterAll, beforeAll, describe, it } from '@jest/globals';
import { startWorld, type World } from '../support/world.ts';
import { STORIES } from './stories.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld({ services: ['reflector'] });
});
afterAll(() => world?.stop());

describe('with both listeners off', () => {
  it.each(STORIES.map((story) => [story.name, story] as const))('%s', (_name, story) => story.tell(world));
});
