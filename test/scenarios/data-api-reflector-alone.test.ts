import { startDataApiSide } from '../support/legacy/data-api.ts';
import { describeReflectorAlone } from './scenarios.ts';

describeReflectorAlone(startDataApiSide);
