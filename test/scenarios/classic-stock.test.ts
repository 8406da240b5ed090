import { startStockSide } from '../support/legacy/classic.ts';
import { describeScenarios } from './scenarios.ts';

describeScenarios(startStockSide);
