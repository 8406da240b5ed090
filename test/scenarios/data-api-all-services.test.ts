import { startDataApiSide } from '../support/legacy/data-api.ts';
import { describeWithAllServices } from './scenarios.ts';

describeWithAllServices(startDataApiSide);
