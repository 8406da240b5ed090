/** The bridge's processes: they die, freeze and are restarted, and in the end all of them run. */
import type { Bridge } from '../../bridge.ts';
import type { Host } from './host.ts';
import type { World } from './world.ts';

/** What befalls a process answers whether there was one that it could befall. */
export interface Fleet {
  start(): void;
  /** Of the process of this name, or of some process. It is started again after a while. */
  crash(name: string | undefined, downMs: number): boolean;
  /** As an operator does it: what is under way is finished first, or the process is killed after a time. */
  restart(name: string | undefined): boolean;
  pause(name: string | undefined, ms: number): boolean;
  setClock(name: string | undefined, offsetMs: number): boolean;
  /** All run again. */
  recover(): void;
}

interface Member {
  readonly index: number;
  launches: number;
  host?: Host;
  bridge?: Bridge;
}

/** How long a process gets to stop. */
const STOP_MS = 30_000;
const START_AGAIN_MS = 5000;

export function createFleet(world: World): Fleet {
  const { scheduler, history, random, plan } = world;
  const members: Member[] = plan.instances.map((_, index) => ({ index, launches: 0 }));

  function launch(member: Member): void {
    if (member.host?.isAlive()) {
      return;
    }
    member.launches += 1;
    const name = `b${member.index + 1}.${member.launches}`;
    const { host, bridge } = world.launch(member.index, name);
    Object.assign(member, { host, bridge });
    history.note(name, 'starts');
    host.deliver(() => {
      bridge.start().catch(() => {
        // As the daemon does it when a dependency is away: the process ends and is started again.
        host.crash();
        scheduler.after(START_AGAIN_MS, () => launch(member));
      });
    });
  }

  function find(name: string | undefined): Member | undefined {
    const living = members.filter(({ host }) => host?.isAlive());
    return name === undefined && living.length > 0
      ? random.pick(living)
      : living.find(({ host }) => host?.name === name);
  }

  function end(member: Member, host: Host, downMs: number): void {
    if (host.isAlive()) {
      host.crash();
      scheduler.after(downMs, () => launch(member));
    }
  }

  return {
    start() {
      for (const member of members) {
        scheduler.after(random.int(0, 5000), () => launch(member));
      }
    },
    crash(name, downMs) {
      const member = find(name);
      if (member?.host === undefined) {
        return false;
      }
      history.note(member.host.name, 'dies');
      end(member, member.host, downMs);
      return true;
    },
    restart(name) {
      const member = find(name);
      const { host, bridge } = member ?? {};
      if (member === undefined || host === undefined || bridge === undefined) {
        return false;
      }
      history.note(host.name, 'is asked to stop');
      host.deliver(() => {
        const again = () => end(member, host, random.int(100, 5000));
        bridge.stop().then(again, again);
        scheduler.after(STOP_MS, again);
      });
      return true;
    },
    pause(name, ms) {
      const member = find(name);
      if (member?.host === undefined) {
        return false;
      }
      history.note(member.host.name, `freezes for ${ms} ms`);
      return member.host.pause(ms);
    },
    setClock(name, offsetMs) {
      const member = find(name);
      if (member?.host === undefined) {
        return false;
      }
      history.note(member.host.name, `its machine's clock is ${offsetMs} ms off now`);
      member.host.setClock(offsetMs);
      return true;
    },
    recover() {
      for (const member of members) {
        member.host?.wake();
        if (plan.instances[member.index]?.mode === 'drain') {
          member.host?.crash();
        }
        launch(member);
      }
    },
  };
}
