/** The run is wanted, and nothing was submitted for it yet, or nobody knows whether it was. */
import type { Action } from '../actions.ts';
import type { SeenAdmission } from '../decide.ts';
import { type Facts, lookAgain, nextLook, reclaimIfNear, unreadable } from './facts.ts';

/** Nothing was submitted yet, or it is not known whether it was. */
export function decideUnsubmitted(facts: Facts, admission: SeenAdmission | null): readonly Action[] {
  const { mapping, request, policy, now } = facts;
  const near = reclaimIfNear(facts);
  if (now >= mapping.deadline) {
    return [lookAgain(now + policy.recheckMs, 'the deadline has passed; the queue will resolve the run')];
  }
  if (mapping.state === 'held') {
    return [...near, { do: 'takeSlot', because: 'an older request that it would collapse may be out of the way' }];
  }
  if (request.kind === 'absent' && now < mapping.nextCheckAt) {
    return [...near, lookAgain(mapping.nextCheckAt, 'the answer to an earlier submission may still take effect')];
  }
  if (admission?.kind === 'unreadable') {
    return unreadable(facts, 'whether the task can be built could not be read');
  }
  if (admission?.kind === 'refused') {
    return [...near, { do: 'refuse', because: 'the task can no longer be built here' }];
  }
  if (admission?.kind !== 'admitted') {
    return [...near, lookAgain(nextLook(facts), 'another bridge looks after this builder now')];
  }
  if (mapping.submissions === 0) {
    // Taken over from another bridge, with the external id that its request would have: ours gets one of our own.
    return [...near, { do: 'resubmit', because: 'the bridge before this one has made no build request' }];
  }
  return [
    ...near,
    {
      do: 'submit',
      because:
        request.kind === 'absent' ? 'no build request of this submission exists' : 'the task is wanted and admitted',
    },
  ];
}
