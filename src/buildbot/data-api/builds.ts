/** The builds of build requests, in as few calls as the master's version allows. */
import { z } from 'zod';
import { LegacyCiError } from '../../errors.ts';
import { anyList } from '../../lists.ts';
import type { BadRecord, Records } from '../records.ts';
import { type BuildAnswer, buildsAnswer } from './answers.ts';
import type { RestClient } from './rest-client.ts';

const anyBuilds = z.object({ builds: anyList });

/** Reads the builds of all these build requests, and of no others. @throws LegacyCiError */
export type BuildReader = (requestIds: readonly number[]) => Promise<Records<BuildAnswer>>;

/**
 * Recorded, and read in its source: of several `buildrequestid` the builds' endpoint drops all, and answers every build
 * there is. `in` is passed on to the database from 3.4 on; before, it is dropped likewise, and before 2.6 refused.
 */
export function createBuildReader(rest: RestClient): BuildReader {
  /** What a master once showed that it takes, or not. */
  let takesMany: boolean | undefined;

  const readOne = async (id: number) => (await rest.get(`builds?buildrequestid=${id}`, buildsAnswer)).builds;

  async function readMany(ids: readonly number[]): Promise<Records<BuildAnswer>> {
    const query = ids.map((id) => `buildrequestid__in=${id}`).join('&');
    return (await rest.get(`builds?${query}`, buildsAnswer)).builds;
  }

  async function readEach(ids: readonly number[]): Promise<Records<BuildAnswer>> {
    const read: BuildAnswer[] = [];
    const bad: BadRecord[] = [];
    for (const id of ids) {
      const found = await readOne(id);
      read.push(...found.read);
      bad.push(...found.bad);
    }
    return { read, bad };
  }

  /** Whether no builds are found for no request. Of a master without any build that tells nothing. */
  async function canTakeMany(): Promise<boolean | undefined> {
    try {
      if ((await rest.get('builds?buildrequestid__in=0&limit=1', anyBuilds)).builds.length > 0) {
        return false;
      }
      return (await rest.get('builds?limit=1', anyBuilds)).builds.length > 0 ? true : undefined;
    } catch (error) {
      if (error instanceof LegacyCiError && error.code === 'legacy-ci-rejected') {
        return false;
      }
      throw error;
    }
  }

  return async (ids) => {
    const [only] = ids;
    if (only !== undefined && ids.length === 1) {
      return readOne(only);
    }
    takesMany ??= await canTakeMany();
    return takesMany === true ? readMany(ids) : readEach(ids);
  };
}
