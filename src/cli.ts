#!/usr/bin/env node
/**
 * Where `bbb` begins. The heap's settings have to come before the program that fills it: a bridge is idle nearly all of
 * the time, operators pay for its memory and not for its speed, and a burst of tasks must not leave a large heap behind.
 */
import { setFlagsFromString } from 'node:v8';

setFlagsFromString('--optimize-for-size');
setFlagsFromString('--max-semi-space-size=2');
await import('./program.ts');
