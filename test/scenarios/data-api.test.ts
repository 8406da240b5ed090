import { startDataApiSide } from '../support/legacy/data-api.ts';
import { describeScenarios } from './scenarios.ts';

describeScenarios(startDataApiSide);
