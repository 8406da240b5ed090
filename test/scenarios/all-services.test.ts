import { afterAll, beforeAll, describe, it } from '@jest/globals';
import { startWorld, type World } from '../support/world.ts';
import { STORIES } from './stories.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.stop());

describe('with all services', () => {
  it.each(STORIES.map((story) => [story.name, story] as const))('%s', (_name, story) => story.tell(world));
});
