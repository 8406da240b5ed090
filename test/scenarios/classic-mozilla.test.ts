import { startMozillaSide } from '../support/legacy/classic.ts';
import { describeScenarios } from './scenarios.ts';

describeScenarios(startMozillaSide);
