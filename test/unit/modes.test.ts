import { describe, expect, it } from '@jest/globals';
import { ACTION_KINDS, type Action, applyMode } from '../../src/reflector/actions.ts';

const because = 'of a test';
const ACTIONS: readonly Action[] = [
  { do: 'recordIntent', runId: 0, state: 'intended', because },
  { do: 'recordIntent', runId: 0, state: 'refusing', because },
  { do: 'takeSlot', because },
  { do: 'submit', because },
  { do: 'refuse', because },
  { do: 'claimRun', runId: 0, retriesReported: 0, because },
  { do: 'cancelRequest', isLoud: false, because },
];
const named = (actions: readonly Action[]) => actions.map((action) => ('state' in action ? action.state : action.do));

describe('a mode', () => {
  it('normal leaves nothing out', () => {
    expect(applyMode(ACTIONS, 'normal', false)).toEqual({ todo: ACTIONS, left: [] });
  });

  it('drain takes on nothing, be it to refuse it, makes no new build requests, and claims and cancels as always', () => {
    const { todo, left } = applyMode(ACTIONS, 'drain', false);
    expect(named(todo)).toEqual(['claimRun', 'cancelRequest']);
    expect(named(left)).toEqual(['intended', 'refusing', 'takeSlot', 'submit', 'refuse']);
  });

  it('drain leaves nothing else out, whatever it is', () => {
    const others = ACTION_KINDS.filter((kind) => !['recordIntent', 'takeSlot', 'submit', 'refuse'].includes(kind));
    const actions = others.map((kind) => ({ do: kind, because }) as Action);
    expect(applyMode(actions, 'drain', false)).toEqual({ todo: actions, left: [] });
  });

  it('drain builds a run that is claimed: it would not come to its end otherwise', () => {
    expect(applyMode(ACTIONS, 'drain', true).left).toEqual([]);
  });

  it('observe does nothing', () => {
    expect(applyMode(ACTIONS, 'observe', true)).toEqual({ todo: [], left: ACTIONS });
  });
});
