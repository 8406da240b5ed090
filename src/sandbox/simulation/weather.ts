/** What may go wrong with a call or a message, and whether it does. After the calm has begun, nothing does any more. */

import type { History } from './history.ts';
import type { Random } from './random.ts';
import type { Scheduler } from './scheduler.ts';

export type Service = 'queue' | 'ci' | 'store';
export const FOREIGN: readonly Service[] = ['queue', 'ci', 'store'];

/** How likely each call or message meets each fault, and when a service is away. */
export interface Climate {
  /** A call fails and has no effect. */
  readonly failBefore: number;
  /** A call takes effect and fails all the same. */
  readonly failAfter: number;
  /** A call fails, and takes effect a little later. */
  readonly late: number;
  readonly slow: number;
  /** Rights are missing for this one call. */
  readonly forbidden: number;
  readonly drop: number;
  readonly repeat: number;
  readonly delay: number;
  /** It is not known of a submission whether it took, or will take, effect. */
  readonly unknownSubmission: number;
  /** Roles cannot be expanded: auth is away, and the queue is not. */
  readonly authAway: number;
  /** A cancel is answered and nothing comes of it. */
  readonly lostCancel: number;
  readonly outages: readonly { readonly service: Service; readonly from: number; readonly to: number }[];
  /** When contents that are uploaded go nowhere: until then, or until somebody gives the connection up. */
  readonly swallowed: readonly { readonly from: number; readonly to: number }[];
}

/** The longest that a call without an answer may take to have its effect; less than the bridge's grace. */
export const MAX_LATE_MS = 15_000;
const MAX_SLOW_MS = 10_000;
const MAX_FAIL_MS = 12_000;
const MAX_DELAY_MS = 600_000;
/** How long an upload may stand still before somebody gives it up. */
const HUNG_MS = { least: 120_000, most: 1_800_000 };

export interface Fate {
  /** Until its effect, or its failure. */
  readonly ms: number;
  readonly effect: 'now' | 'never' | 'late';
  readonly lateMs: number;
  readonly isAnswered: boolean;
  readonly isForbidden: boolean;
  /** Whether anything is wrong with it, be it that it is slow. */
  readonly isFault: boolean;
}

export interface Weather {
  fateOf(call: { readonly service: Service; readonly method: string; readonly isChange: boolean }): Fate;
  /** In how many milliseconds each copy of a message arrives; none if it is lost. */
  copies(): readonly number[];
  isCancelLost(): boolean;
  isAway(service: Service): boolean;
  /** From now on all is well. */
  calm(): void;
  isCalm(): boolean;
}

export interface WeatherOptions {
  readonly climate: Climate;
  readonly random: Random;
  readonly scheduler: Scheduler;
  readonly history: History;
  /** Whether a service is away for a reason of its own. */
  readonly isDown: (service: Service) => boolean;
}

export function createWeather({ climate, random, scheduler, history, isDown }: WeatherOptions): Weather {
  let isCalm = false;
  const well = (ms: number, isFault = false): Fate => ({
    ms,
    effect: 'now',
    lateMs: 0,
    isAnswered: true,
    isForbidden: false,
    isFault,
  });
  const latency = (service: Service) => (service === 'store' ? random.int(1, 6) : random.int(8, 60));

  const isNow = ({ from, to }: { readonly from: number; readonly to: number }) =>
    from <= scheduler.now() && scheduler.now() < to;

  function isAway(service: Service): boolean {
    const isOut = climate.outages.some((outage) => outage.service === service && isNow(outage));
    return isDown(service) || (isOut && !isCalm);
  }

  function failed(kind: string, effect: Fate['effect'], isForbidden = false): Fate {
    history.fault(kind);
    const ms = random.chance(0.5) ? random.int(10, 200) : random.int(200, MAX_FAIL_MS);
    return { ms, effect, lateMs: random.int(10, MAX_LATE_MS), isAnswered: false, isForbidden, isFault: true };
  }

  /** It keeps nothing but itself from anything, so it is none of what may hinder the bridge. */
  function hung(to: number): Fate {
    history.fault('upload hung');
    const ms = Math.min(random.int(HUNG_MS.least, HUNG_MS.most), to - scheduler.now());
    const isGivenUp = random.chance(0.5);
    return { ...well(ms), effect: isGivenUp ? 'never' : 'now', isAnswered: !isGivenUp };
  }

  return {
    isAway,
    fateOf({ service, method, isChange }) {
      if (isAway(service)) {
        return failed(`${service} away`, 'never');
      }
      if (isCalm) {
        return well(latency(service));
      }
      if (method === 'submit' && random.chance(climate.unknownSubmission)) {
        return failed('submission unknown', random.pick(['never', 'now', 'late', 'late'] as const));
      }
      if (method === 'expandScopes' && random.chance(climate.authAway)) {
        return failed('auth away', 'never');
      }
      const swallowed = method === 'putContent' ? climate.swallowed.find(isNow) : undefined;
      if (swallowed) {
        return hung(swallowed.to);
      }
      const draw = random.next();
      const { failBefore, failAfter, late, slow, forbidden } = climate;
      if (draw < failBefore) {
        return failed('call failed before its effect', 'never');
      }
      if (draw < failBefore + failAfter) {
        return failed(isChange ? 'call failed after its effect' : 'answer lost', 'now');
      }
      if (draw < failBefore + failAfter + late && isChange) {
        return failed('call took effect after it had failed', 'late');
      }
      if (draw < failBefore + failAfter + late + forbidden && service !== 'store') {
        return failed('call forbidden', 'never', true);
      }
      if (draw > 1 - slow) {
        history.fault('call slow');
        return well(random.int(200, MAX_SLOW_MS), true);
      }
      return well(latency(service));
    },
    copies() {
      const near = () => random.int(5, 300);
      if (isCalm) {
        return [near()];
      }
      if (random.chance(climate.drop)) {
        history.fault('message dropped');
        return [];
      }
      const isDelayed = random.chance(climate.delay);
      if (isDelayed) {
        history.fault('message delayed');
      }
      const first = isDelayed ? random.int(1000, MAX_DELAY_MS) : near();
      if (random.chance(climate.repeat)) {
        history.fault('message repeated');
        return [first, first + (random.chance(0.5) ? near() : random.int(1000, MAX_DELAY_MS))];
      }
      return [first];
    },
    isCancelLost() {
      const isLost = !isCalm && random.chance(climate.lostCancel);
      if (isLost) {
        history.fault('cancel lost');
      }
      return isLost;
    },
    calm() {
      isCalm = true;
    },
    isCalm: () => isCalm,
  };
}
