/** Logs as postrun.py uploads them: one gzipped text a build, on a server that is not the master. */
import { gzipSync } from 'node:zlib';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { type ClassicBuild, stepsOf } from './builds.ts';
import { directoryOf } from './options.ts';

const WORDS = ['success', 'warnings', 'failure', 'skipped', 'exception', 'retry', 'cancelled'];
const parameters = z.object({ name: z.string() });

export interface LogUploads {
  /** Answers where it is. */
  add(build: ClassicBuild): string;
}

/** @param as whether the gzip is the text's encoding (what an Apache says of `.txt.gz`) or a file of its own */
export function createLogUploads(url: () => string, as: 'encoded' | 'file') {
  const uploaded = new Map<string, Buffer>();
  return {
    add(build: ClassicBuild): string {
      const name = `${directoryOf(build.builder)}-bm1-build${build.number}-${uploaded.size + 1}.txt.gz`;
      uploaded.set(name, gzipSync(logText(build)));
      return `${url()}/logs/${encodeURIComponent(name)}`;
    },
    register(app: FastifyInstance): void {
      app.get('/logs/:name', async (request, reply) => {
        const content = uploaded.get(parameters.parse(request.params).name);
        if (content === undefined) {
          return reply.code(404).type('text/plain').send('not found');
        }
        return as === 'encoded'
          ? reply.type('text/plain').header('content-encoding', 'gzip').send(content)
          : reply.type('application/x-gzip').send(content);
      });
    },
  };
}

function logText(build: ClassicBuild): string {
  const results = build.results ?? 0;
  const header = [
    `builder: ${directoryOf(build.builder)}`,
    `slave: ${build.worker}`,
    `starttime: ${build.startedAt / 1000}`,
    `results: ${WORDS[results] ?? 'unknown'} (${results})`,
    '',
    '',
  ];
  const steps = stepsOf(build.attempt).map(
    ({ name, log = '' }) => `========= Started ${name} =========\n${log}========= Finished ${name} =========\n\n`,
  );
  return header.join('\n') + steps.join('');
}
