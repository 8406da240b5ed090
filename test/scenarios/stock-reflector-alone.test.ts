import { startStockSide } from '../support/legacy/classic.ts';
import { describeReflectorAlone } from './scenarios.ts';

describeReflectorAlone(startStockSide);
