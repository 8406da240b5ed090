/** A template of a private Buildbot master and worker, of which each test copies its own. */
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { freePort, run, startDaemon, waitForDaemon } from './process.mjs';

export async function prepareBuildbot(base) {
  const folder = path.join(base, 'buildbot');
  const plugin = path.join(folder, 'plugin');
  mkdirSync(folder, { recursive: true });
  writeWebPlugin(plugin);
  const env = { ...process.env, PYTHONPATH: plugin, PYTHONDONTWRITEBYTECODE: '1' };
  const template = path.join(folder, 'template');
  mkdirSync(template, { recursive: true });
  await run('/usr/bin/buildbot', ['create-master', '-r', path.join(template, 'master')], { env });
  await run(
    '/usr/bin/buildbot-worker',
    ['create-worker', '--umask=0o22', path.join(template, 'worker'), '127.0.0.1:1', 'w1', 'worker-pass'],
    { env },
  );
  cpSync(path.join(import.meta.dirname, 'master.cfg.py'), path.join(template, 'master/master.cfg'));
  // They log to their output; the worker's address comes from the copy's own settings.
  writeFileSync(path.join(template, 'master/buildbot.tac'), MASTER_TAC);
  writeFileSync(path.join(template, 'worker/buildbot.tac'), WORKER_TAC);
  return { folder, template, pythonPath: plugin };
}

/** A copy with a master and a worker that run. @returns its URL */
export async function startBuildbotCopy(facts, env) {
  const copy = path.join(facts.folder, 'demo');
  cpSync(facts.template, copy, { recursive: true });
  const settings = { web: await freePort(), pb: await freePort(), collapse: true };
  const own = { ...env, PYTHONPATH: facts.pythonPath, PYTHONDONTWRITEBYTECODE: '1', TZ: 'UTC' };
  const args = ['/usr/bin/twistd3', '--nodaemon', '--no_save', '--pidfile=', '--logfile=-', '-y', 'buildbot.tac'];
  for (const part of ['master', 'worker']) {
    writeFileSync(path.join(copy, part, 'settings.json'), JSON.stringify(settings));
    startDaemon(copy, part, '/usr/bin/python3', args, { env: own, cwd: path.join(copy, part) });
  }
  const url = `http://127.0.0.1:${settings.web}`;
  await waitForDaemon(copy, 'master', async () => {
    const { workers } = await (await fetch(`${url}/api/v2/workers`)).json();
    return workers.some((worker) => worker.name === 'w1' && worker.connected_to.length > 0);
  });
  return url;
}

const MASTER_TAC = `import os
from buildbot.master import BuildMaster
from twisted.application import service
application = service.Application('buildmaster')
master = BuildMaster(os.path.abspath(os.path.dirname(__file__)), 'master.cfg', 0o22)
master.setServiceParent(application)
`;

const WORKER_TAC = `import json, os
import buildbot_worker.pb
from buildbot_worker.bot import Worker
from twisted.application import service
basedir = os.path.abspath(os.path.dirname(__file__))
settings = json.load(open(os.path.join(basedir, 'settings.json')))
# A master that was restarted gets its worker back at once.
buildbot_worker.pb.backoffPolicy = lambda *args, **kwargs: lambda attempt: 0.3
application = service.Application('buildbot-worker')
worker = Worker('127.0.0.1', settings['pb'], 'w1', 'worker-pass', basedir, 30, umask=0o22)
worker.setServiceParent(application)
`;

/** Debian has no buildbot-www; the master opens its web port for any plugin of that name. */
function writeWebPlugin(folder) {
  const module = path.join(folder, 'bbb_www_base');
  const info = path.join(folder, 'bbb_www_base-1.dist-info');
  mkdirSync(path.join(module, 'static'), { recursive: true });
  mkdirSync(info, { recursive: true });
  writeFileSync(path.join(module, 'VERSION'), '1');
  writeFileSync(
    path.join(module, '__init__.py'),
    "from buildbot.www.plugin import Application\nep = Application(__name__, 'the API without a page')\n",
  );
  writeFileSync(path.join(info, 'METADATA'), 'Metadata-Version: 2.1\nName: bbb-www-base\nVersion: 1\n');
  writeFileSync(path.join(info, 'entry_points.txt'), '[buildbot.www]\nbase = bbb_www_base:ep\n');
}
