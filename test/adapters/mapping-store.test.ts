import { describe, jest } from '@jest/globals';
import { describeLeases } from './mapping-store-leases.cases.ts';
import { describeProcesses } from './mapping-store-processes.cases.ts';
import { describeQueries } from './mapping-store-queries.cases.ts';
import { describeRows } from './mapping-store-rows.cases.ts';
import { describeSchema } from './mapping-store-schema.cases.ts';
import { ENGINES } from './mapping-store-support.ts';

jest.setTimeout(60_000);

describe.each(ENGINES)('the mapping store on $name', (engine) => {
  describeRows(engine);
  describeLeases(engine);
  describeQueries(engine);
  describeSchema(engine);
  describeProcesses(engine);
});
