/**
 * Decides which faults strike a call. Rules are asked in the order in which they came; delays add
 * up, and the first rule that ends or spoils the call is the only one to do so. A rule's count is
 * spent only on calls that its action can strike: an expired token on those that carry one, a
 * corrupted block on gets, and so on.
 */
import { Failure } from "../common/failure.js";
import type { Operation } from "./call.js";
import { canStrike, type FaultAction, type FaultRule } from "./fault-rule.js";
import { ServiceError } from "./service-error.js";

/** What happens to one call. */
export interface FaultPlan {
  /** ms */
  delay: number;
  /** Thrown instead of doing the work. */
  error: ServiceError | undefined;
  strike: FaultAction | undefined;
  /** The rule behind `strike`. */
  rule: FaultRule | undefined;
  pageLimit: number | undefined;
  tokensExpired: boolean;
}

interface Standing {
  readonly id: number;
  readonly rule: FaultRule;
  /** Calls that matched, and calls that were hit. */
  matched: number;
  hit: number;
  random: number;
  /** Token bucket of a rate rule. */
  allowance: number;
  filledAt: number;
}

/** A rule as it stands, for the admin path. */
export interface FaultStatus {
  readonly id: number;
  readonly rule: FaultRule;
  readonly matched: number;
  readonly hit: number;
}

const MAX_RULES = 1000;

export class Faults {
  #standing: Standing[] = [];
  #nextId = 1;

  /** Adds rules after those there are. @returns their ids. @throws Failure EINVAL past MAX_RULES */
  add(...rules: readonly FaultRule[]): number[] {
    if (this.#standing.length + rules.length > MAX_RULES) {
      throw new Failure("EINVAL", `There can be ${MAX_RULES} fault rules at most.`);
    }
    return rules.map((rule) => {
      const id = this.#nextId++;
      const random = ((rule.seed ?? id) * 2654435761) >>> 0;
      const allowance = burstOf(rule);
      const filledAt = performance.now();
      this.#standing.push({ id, rule, matched: 0, hit: 0, random, allowance, filledAt });
      return id;
    });
  }

  /** Takes all rules away. */
  clear(): void {
    this.#standing = [];
  }

  /** Takes one rule away. @returns whether it was there. */
  remove(id: number): boolean {
    const at = this.#standing.findIndex((one) => one.id === id);
    if (at >= 0) this.#standing.splice(at, 1);
    return at >= 0;
  }

  list(): FaultStatus[] {
    return this.#standing.map(({ id, rule, matched, hit }) => ({ id, rule, matched, hit }));
  }

  /** What is to happen to a call; undefined for nothing. @param hasToken it carries a token. */
  decide(
    operation: Operation,
    snapshotId: string,
    blockIndex: number,
    hasToken: boolean,
  ): FaultPlan | undefined {
    let plan: FaultPlan | undefined;
    for (const standing of this.#standing) {
      const { rule } = standing;
      if (!matches(rule, operation, snapshotId, blockIndex)) continue;
      if (rule.action === "expired-token" && !hasToken) continue;
      if (plan?.strike !== undefined && !isAddition(rule.action)) continue;
      if (!strikes(standing)) continue;
      plan ??= {
        delay: 0,
        error: undefined,
        strike: undefined,
        rule: undefined,
        pageLimit: undefined,
        tokensExpired: false,
      };
      apply(plan, standing);
    }
    return plan;
  }
}

function burstOf(rule: FaultRule): number {
  return rule.burst ?? Math.max(1, rule.perSecond ?? 1);
}

/** Actions that change a call and leave it to go on. */
function isAddition(action: FaultAction): boolean {
  return action === "latency" || action === "short-page" || action === "empty-page";
}

function matches(
  rule: FaultRule,
  operation: Operation,
  snapshotId: string,
  blockIndex: number,
): boolean {
  if (!canStrike(rule.action, operation)) return false;
  if (rule.operations !== undefined && !rule.operations.includes(operation)) return false;
  if (rule.snapshots !== undefined && !rule.snapshots.includes(snapshotId)) return false;
  const { blocks } = rule;
  return blocks === undefined || (blockIndex >= blocks[0] && blockIndex <= blocks[1]);
}

function strikes(standing: Standing): boolean {
  const { rule } = standing;
  standing.matched += 1;
  if (standing.matched <= (rule.skip ?? 0)) return false;
  if (standing.hit >= (rule.count ?? Number.POSITIVE_INFINITY)) return false;
  if (rule.probability !== undefined && nextRandom(standing) >= rule.probability) return false;
  if (rule.action === "rate" && takeAllowance(standing)) return false;
  standing.hit += 1;
  return true;
}

function apply(plan: FaultPlan, standing: Standing): void {
  const { rule } = standing;
  switch (rule.action) {
    case "latency":
      plan.delay += (rule.ms ?? 0) + nextRandom(standing) * (rule.jitterMs ?? 0);
      return;
    case "short-page":
      plan.pageLimit = Math.min(plan.pageLimit ?? Number.POSITIVE_INFINITY, rule.entries ?? 1);
      return;
    case "empty-page":
      plan.pageLimit = 0;
      return;
    case "rate": {
      const { name = "RequestThrottledException", status } = rule;
      const message = rule.message ?? "The request rate is above the limit.";
      const reason = rule.reason ?? (rule.name === undefined ? "ACCOUNT_THROTTLED" : undefined);
      plan.error = new ServiceError(name, message, reason, status);
      break;
    }
    case "error": {
      const name = rule.name ?? "InternalServerException";
      const message = rule.message ?? "A fault rule ordered this error.";
      plan.error = new ServiceError(name, message, rule.reason, rule.status);
      break;
    }
    case "expired-token":
      plan.tokensExpired = true;
      break;
    default:
      break;
  }
  plan.strike = rule.action;
  plan.rule = rule;
}

/** xorshift32 of the rule's own, so that calls of other kinds do not change its sequence. */
function nextRandom(standing: Standing): number {
  let x = standing.random === 0 ? 1 : standing.random;
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  standing.random = x >>> 0;
  return standing.random / 2 ** 32;
}

function takeAllowance(standing: Standing): boolean {
  const now = performance.now();
  const earned = ((now - standing.filledAt) / 1000) * (standing.rule.perSecond ?? 1);
  standing.allowance = Math.min(burstOf(standing.rule), standing.allowance + earned);
  standing.filledAt = now;
  if (standing.allowance < 1) return false;
  standing.allowance -= 1;
  return true;
}
