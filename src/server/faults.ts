/**
 * Decides which faults strike a call. Rules are asked in the order in which they came, the habits that
 * the endpoint was started with last; delays add up, and the first rule that ends or spoils the call
 * is the only one to do so. A rule's count is spent only on calls that its action can strike: an
 * expired token on those that carry one, a corrupted block on gets, and so on.
 */
import { Failure } from "../common/failure.js";
import { type CallEffects, NO_EFFECTS, type Route } from "./call.js";
import type { FaultRule } from "./fault-rule.js";
import { FAULTS, type FaultAction } from "./fault-table.js";
import { ServiceError } from "./service-error.js";
import { type SnapshotLookUp, StandingFault } from "./standing-fault.js";

/** What happens to one call. */
export interface FaultPlan {
  /** ms */
  delay: number;
  /** Thrown instead of doing the work. */
  error: ServiceError | undefined;
  strike: FaultAction | undefined;
  /** The rule behind `strike`. */
  rule: FaultRule | undefined;
  /** The rule behind the clock, where that is wrong. */
  clock: FaultRule | undefined;
  /** What the operation does otherwise than usual. */
  effects: CallEffects;
}

/** A rule as it stands, for the admin path. */
export interface FaultStatus {
  readonly id: number;
  readonly rule: FaultRule;
  readonly matched: number;
  readonly hit: number;
}

export interface FaultsOptions {
  /** Rules that stay for good, and are not listed. */
  readonly habits?: readonly FaultRule[];
  readonly lookUp?: SnapshotLookUp;
}

const MAX_RULES = 1000;
const DEFAULT_SKEW_MINUTES = 10;

export class Faults {
  readonly #lookUp: SnapshotLookUp;
  readonly #habits: readonly StandingFault[];
  #standing: StandingFault[] = [];
  /** Those and then the habits. */
  #all: readonly StandingFault[];
  #nextId = 1;

  constructor(options: FaultsOptions = {}) {
    this.#lookUp = options.lookUp ?? (() => undefined);
    const habits = options.habits ?? [];
    this.#habits = habits.map((rule, i) => new StandingFault(i, rule, this.#lookUp));
    this.#all = this.#habits;
  }

  /** Adds rules after those there are. @returns their ids. @throws Failure EINVAL past MAX_RULES */
  add(...rules: readonly FaultRule[]): number[] {
    if (this.#standing.length + rules.length > MAX_RULES) {
      throw new Failure("EINVAL", `There can be ${MAX_RULES} fault rules at most.`);
    }
    const added = rules.map((rule) => new StandingFault(this.#nextId++, rule, this.#lookUp));
    this.#put([...this.#standing, ...added]);
    return added.map(({ id }) => id);
  }

  /** Takes all rules away, except for the habits. */
  clear(): void {
    this.#put([]);
  }

  /** Takes one rule away. @returns whether it was there. */
  remove(id: number): boolean {
    const kept = this.#standing.filter((one) => one.id !== id);
    const isThere = kept.length < this.#standing.length;
    this.#put(kept);
    return isThere;
  }

  list(): FaultStatus[] {
    return this.#standing.map(({ id, rule, matched, hit }) => ({ id, rule, matched, hit }));
  }

  /** What is to happen to a call; undefined for nothing. @param hasToken it carries a token. */
  decide(route: Route, hasToken: boolean): FaultPlan | undefined {
    let plan: FaultPlan | undefined;
    for (const standing of this.#all) {
      if (!standing.isAbout(route, hasToken)) continue;
      if (plan?.strike !== undefined && !FAULTS[standing.rule.action].isAddition) continue;
      if (!standing.strikes(route)) continue;
      plan ??= {
        delay: 0,
        error: undefined,
        strike: undefined,
        rule: undefined,
        clock: undefined,
        effects: NO_EFFECTS,
      };
      apply(plan, standing, route);
    }
    return plan;
  }

  #put(standing: StandingFault[]): void {
    this.#standing = standing;
    this.#all = [...standing, ...this.#habits];
  }
}

function apply(plan: FaultPlan, standing: StandingFault, route: Route): void {
  const { rule } = standing;
  const { action } = rule;
  if (action === "latency") plan.delay += (rule.ms ?? 0) + standing.random() * (rule.jitterMs ?? 0);
  if (action === "clock-skew") plan.clock = rule;
  const effects = effectsOf(rule, plan.effects);
  if (effects !== undefined) plan.effects = { ...plan.effects, ...effects };
  if (FAULTS[action].isAddition) return;
  plan.strike = action;
  plan.rule = rule;
  plan.error = errorOf(rule, route);
}

function effectsOf(rule: FaultRule, before: CallEffects): CallEffects | undefined {
  switch (rule.action) {
    case "short-page": {
      const { pageLimit = Number.POSITIVE_INFINITY } = before;
      return { pageLimit: Math.min(pageLimit, rule.entries ?? 1) };
    }
    case "empty-page":
      return { pageLimit: 0 };
    case "empty-pages":
      return { pageLimit: 0, repeatsToken: true };
    case "null-list":
      return { nullList: true };
    case "expired-token":
      return { tokensExpired: true };
    case "completed-start":
      return { startsCompleted: true };
    case "unencrypted-start":
      return { hidesKey: true };
    case "clock-skew":
      return { clockOffsetMs: (rule.minutes ?? DEFAULT_SKEW_MINUTES) * 60_000 };
    default:
      return undefined;
  }
}

/** The exception that a rule responds with; undefined where it does something else. */
function errorOf(rule: FaultRule, { snapshotId }: Route): ServiceError | undefined {
  const { error } = FAULTS[rule.action];
  if (error === undefined) return undefined;
  // A reason belongs to its exception: under another name there is only the rule's own.
  const isRenamed = rule.name !== undefined && rule.name !== error.name;
  const usual = rule.perSnapshot ? "RESOURCE_LEVEL_THROTTLE" : error.reason;
  return new ServiceError(
    rule.name ?? error.name,
    (rule.message ?? error.message).replace("%s", snapshotId),
    rule.reason ?? (isRenamed ? undefined : usual),
    rule.status ?? (isRenamed ? undefined : error.status),
  );
}
