import { startStockSide } from '../support/legacy/classic.ts';
import { describeWithAllServices } from './scenarios.ts';

describeWithAllServices(startStockSide);
