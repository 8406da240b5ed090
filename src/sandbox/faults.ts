/** Switches for faults, shared by the emulated queue, the emulated Buildbot and the in-process broker. */

interface Rule {
  /** How often the rule applies before it is used up; for ever if absent. */
  times?: number;
  /** How likely it applies each time it matches, 0 to 1; always if absent. */
  probability?: number;
  /** Told of each call or message that the rule applies to: its method and path, or its key. */
  readonly onHit?: (what: string) => void;
}

/** What happens to an HTTP call whose method and path (with query) match. */
export interface HttpFault extends Rule {
  readonly method?: string;
  readonly path?: RegExp;
  /** Whether the call takes effect before it goes wrong. */
  readonly takesEffect: boolean;
  readonly outcome:
    | { readonly kind: 'status'; readonly status: number }
    /** The connection is cut. */
    | { readonly kind: 'reset' }
    /** No answer ever comes. */
    | { readonly kind: 'hang' }
    /** The right answer comes, late. Only with `takesEffect`. */
    | { readonly kind: 'slow'; readonly ms: number };
}

/** What happens to a message (Pulse or WebSocket) whose key matches. */
export interface MessageFault extends Rule {
  /** Matched against `<exchange> <routing key>` (Pulse) or the event's key (WebSocket). */
  readonly key?: RegExp;
  readonly outcome:
    | { readonly kind: 'drop' }
    | { readonly kind: 'repeat' }
    | { readonly kind: 'delay'; readonly ms: number }
    /** It is held back until the next message has been sent; of the queue, the next one whose key matches `behind`. */
    | { readonly kind: 'reorder'; readonly behind?: RegExp };
}

/** The rules in force. Add to and clear the lists freely; the first rule that applies is taken. */
export interface Faults {
  readonly http: HttpFault[];
  readonly messages: MessageFault[];
  pickHttp(method: string, path: string): (HttpFault['outcome'] & { readonly takesEffect: boolean }) | undefined;
  pickMessage(key: string): MessageFault['outcome'] | undefined;
}

/**
 * No faults, until rules are added.
 * @param random uniform in [0, 1); seeded by whoever wants to see the same faults again
 */
export function createFaults(random: () => number = Math.random): Faults {
  const http: HttpFault[] = [];
  const messages: MessageFault[] = [];

  function take<R extends Rule>(rules: R[], what: string, matches: (rule: R) => boolean): R | undefined {
    const rule = rules.find(
      (candidate) =>
        candidate.times !== 0 &&
        matches(candidate) &&
        (candidate.probability === undefined || random() < candidate.probability),
    );
    if (rule?.times !== undefined) {
      rule.times -= 1;
    }
    rule?.onHit?.(what);
    return rule;
  }

  return {
    http,
    messages,
    pickHttp(method, path) {
      const isOf = (rule: HttpFault) => (rule.method ?? method) === method && (rule.path?.test(path) ?? true);
      const rule = take(http, `${method} ${path}`, isOf);
      return rule && { ...rule.outcome, takesEffect: rule.takesEffect };
    },
    pickMessage(key) {
      return take(messages, key, (rule) => rule.key?.test(key) ?? true)?.outcome;
    },
  };
}
