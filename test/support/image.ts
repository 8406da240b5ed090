/**
 * The Dockerfile's image, built and run without a container engine: its instructions are carried out in a root of this
 * machine's own programs, which stands in for the base image, in a mount namespace. Needs root, as an engine does.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { promisify } from 'node:util';
import { DOCKERFILE, type Instruction, instructionsOf, type NumericUser, numericUser } from './dockerfile.ts';
import { type Ended, enterNamespace, type Namespace, type Running } from './namespace.ts';

export interface Image {
  /** What `docker run` starts where no command is given: the entry point and its usual arguments. */
  readonly command: readonly string[];
  /** The first part of it. */
  readonly entryPoint: readonly string[];
  /**
   * As `docker run --read-only --cap-drop ALL --security-opt no-new-privileges`, with a writable `/tmp` unless
   * `hasTmp` is false.
   */
  start(command: readonly string[], options?: RunOptions): Running;
  /** The same, to its end. */
  run(command: readonly string[], options?: RunOptions): Promise<Ended>;
  remove(): Promise<void>;
}

export interface RunOptions {
  readonly hasTmp?: boolean;
  readonly env?: Readonly<Record<string, string>>;
}

const CONTEXT = path.resolve(import.meta.dirname, '../..');
/** What a base image has of a system. */
const SYSTEM = ['bin', 'sbin', 'lib', 'lib32', 'lib64', 'usr', 'etc'];

const ROOT: NumericUser = { uid: '0', gid: '0' };

interface Stage {
  readonly name: string;
  readonly root: string;
  workdir: string;
  user: NumericUser;
  readonly env: Record<string, string>;
  entryPoint: readonly string[];
  cmd: readonly string[];
}

/** @throws {Error} for an instruction that it does not know, and for one that fails, with what that said */
export async function buildImage(): Promise<Image> {
  if (process.getuid?.() !== 0) {
    throw new Error('to build and run the image takes root');
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'bbb-image-'));
  let namespace: Namespace | undefined;
  const remove = async () => {
    await namespace?.end();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    namespace = await enterNamespace(folder, 'mode=755');
    return imageOf(await build(folder, namespace), namespace, remove);
  } catch (error) {
    await remove();
    throw error;
  }
}

/** @returns the last stage, of which nothing can be changed any more */
async function build(folder: string, namespace: Namespace): Promise<Stage> {
  const stages: Stage[] = [];
  for (const instruction of instructionsOf(DOCKERFILE)) {
    await perform(instruction, stages, folder, namespace);
  }
  const image = stages.at(-1);
  if (image === undefined) {
    throw new Error('the Dockerfile has no FROM');
  }
  await namespace.sh('mount -o remount,ro,bind "$1"', image.root);
  return image;
}

function imageOf(
  { root, workdir, user, env: own, entryPoint, cmd }: Stage,
  namespace: Namespace,
  remove: () => Promise<void>,
): Image {
  function start(command: readonly string[], { hasTmp = true, env = {} }: RunOptions = {}): Running {
    const mount = hasTmp ? `mount -t tmpfs -o size=1g,mode=1777 tmpfs "${root}/tmp";` : '';
    // Each has mounts of its own, and none is left.
    const script = `${mount} exec chroot "${root}" "$@"`;
    const rights = ['--clear-groups', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs'];
    return namespace.start([
      ...['unshare', '--mount', '--propagation', 'private', 'sh', '-ec', script, 'sh'],
      ...['setpriv', '--reuid', user.uid, '--regid', user.gid, ...rights],
      ...['env', '-i', '-C', workdir, ...assignments({ ...own, ...env }), ...command],
    ]);
  }

  return {
    command: [...entryPoint, ...cmd],
    entryPoint,
    start,
    run: (command, options) => start(command, options).ended,
    remove,
  };
}

async function perform(
  { name, rest }: Instruction,
  stages: Stage[],
  folder: string,
  namespace: Namespace,
): Promise<void> {
  if (name === 'FROM') {
    const root = path.join(folder, String(stages.length));
    await makeRoot(root, namespace);
    const env = { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root' };
    const alias = /^\S+ as (\S+)$/i.exec(rest)?.[1] ?? '';
    stages.push({ name: alias, root, workdir: '/', user: ROOT, env, entryPoint: [], cmd: [] });
    return;
  }
  const stage = stages.at(-1);
  if (stage === undefined) {
    throw new Error(`${name} before FROM`);
  }
  switch (name) {
    case 'ENV': {
      const [key = '', ...value] = rest.split('=');
      stage.env[key] = value.join('=');
      break;
    }
    case 'WORKDIR':
      stage.workdir = rest;
      await namespace.sh('mkdir -p "$1"', path.join(stage.root, rest));
      break;
    case 'USER':
      stage.user = userOf(rest);
      break;
    case 'COPY':
      await copy(rest, stage, stages, namespace);
      break;
    case 'RUN':
      await namespace.sh(
        'root=$1; shift; exec chroot "$root" "$@"',
        ...[stage.root, 'env', '-i', '-C', stage.workdir, ...assignments(stage.env), 'sh', '-ec', rest],
      );
      break;
    case 'ENTRYPOINT':
      stage.entryPoint = JSON.parse(rest);
      break;
    case 'CMD':
      stage.cmd = JSON.parse(rest);
      break;
    case 'EXPOSE':
      break;
    default:
      throw new Error(`${name} is not known here: teach it to ${import.meta.filename}`);
  }
}

/** @throws {Error} for a name, which only the base image could resolve */
function userOf(text: string): NumericUser {
  const user = numericUser(text);
  if (user === undefined) {
    throw new Error(`USER ${text} is no uid:gid`);
  }
  return user;
}

/** The system's programs, which nobody can change, and folders of its own. */
async function makeRoot(root: string, namespace: Namespace): Promise<void> {
  const script = `
    root=$1; cache=$2; shift 2
    mkdir "$root"; mount --bind "$root" "$root"
    for name in "$@"; do
      if [ -L "/$name" ]; then cp -P "/$name" "$root/$name"
      elif [ -d "/$name" ]; then
        mkdir "$root/$name"; mount --bind "/$name" "$root/$name"; mount -o remount,ro,bind "$root/$name"
      fi
    done
    mkdir -m 1777 "$root/tmp"; mkdir "$root/proc" "$root/dev" "$root/root" "$root/root/.npm" "$cache" 2>/dev/null || true
    mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"; mount --bind "$cache" "$root/root/.npm"`;
  const { stdout } = await promisify(execFile)('npm', ['config', 'get', 'cache']);
  await namespace.sh(script, root, stdout.trim(), ...SYSTEM);
}

/** `COPY [--from=stage] source... destination` */
async function copy(rest: string, stage: Stage, stages: readonly Stage[], namespace: Namespace): Promise<void> {
  const words = rest.split(' ');
  const from = words[0]?.startsWith('--from=') ? words.shift()?.slice('--from='.length) : undefined;
  const source = from === undefined ? CONTEXT : stages.find(({ name }) => name === from)?.root;
  const destination = words.pop();
  if (source === undefined || destination === undefined || words.some((word) => word.startsWith('--'))) {
    throw new Error(`COPY ${rest} is not understood`);
  }
  const to = path.join(stage.root, path.resolve(stage.workdir, destination)) + (destination.endsWith('/') ? '/' : '');
  for (const word of words) {
    // Of a folder, what is in it.
    await namespace.sh(
      'if [ -d "$1" ]; then mkdir -p "$2"; cp -a "$1/." "$2"; else cp -a "$1" "$2"; fi',
      path.join(source, word),
      to,
    );
  }
}

function assignments(env: Readonly<Record<string, string>>): readonly string[] {
  return Object.entries(env).map(([key, value]) => `${key}=${value}`);
}
