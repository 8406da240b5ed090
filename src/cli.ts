#!/usr/bin/env node
/**
 * Where `bbb` begins. The heap's settings have to come before the program that fills it: a bridge is idle nearly all of
 * the time, operators pay for its memory and not for its speed, and a burst of tasks must not leave a large heap behind.
 */
import dns from 'node:dns';
import { constants } from 'node:os';
import process from 'node:process';
import { setFlagsFromString } from 'node:v8';
import { shareLookups } from './lookups.ts';

// Of a container's first process the kernel ends nothing by default: what it does not listen for is ignored.
for (const signal of process.pid === 1 ? (['SIGINT', 'SIGTERM'] as const) : []) {
  process.on(signal, () => {
    // Where anything else listens, it knows better.
    if (process.listenerCount(signal) === 1) {
      process.exit(128 + constants.signals[signal]);
    }
  });
}

setFlagsFromString('--optimize-for-size');
setFlagsFromString('--max-semi-space-size=2');
// Before anything connects.
shareLookups(dns);
await import('./program.ts');
