/**
 * A fault to order, as it is written in JSON: which calls (operations, snapshots, blocks), how many
 * of them (share, how many to let pass first, how many at most), and what happens to them. Rules are
 * checked whole when they come in, so that a misspelt word is a sentence and not a fault that never
 * strikes; and an action knows which operations it can strike at all.
 */
import { Failure } from "../common/failure.js";
import { OPERATIONS, type Operation } from "./call.js";

const ACTIONS = [
  /** Wait `ms`, and up to `jitterMs` more, before the work. */
  "latency",
  /**
   * At most `perSecond` calls, `burst` of them at once; others get the exception `name`
   * (RequestThrottledException) with `status`, `reason` (ACCOUNT_THROTTLED) and `message`.
   */
  "rate",
  /** Answer with the exception `name` (InternalServerException), its `status`, `reason`, `message`. */
  "error",
  /** Reset the connection; no work is done. */
  "reset",
  /** Never answer; no work is done. */
  "hang",
  /** Do the work, then drop the connection instead of answering. */
  "lost",
  /** Send `bytes` of an answer's body (half of it) and drop the connection, or, `clean`, call that all. */
  "cut",
  /** Change a byte of a block that is got, under an unchanged checksum. */
  "corrupt",
  /** Answer a get or put rightly but with a wrong checksum. */
  "checksum",
  /** Treat block and page tokens as expired. */
  "expired-token",
  /** At most `entries` (1) in a list page. */
  "short-page",
  /** No entry in a list page, with a token to go on. */
  "empty-page",
] as const;

export type FaultAction = (typeof ACTIONS)[number];

const LISTS: readonly Operation[] = ["ListSnapshotBlocks", "ListChangedBlocks"];
/** What can be struck at all, where that is not every operation. */
const STRUCK: Partial<Record<FaultAction, readonly Operation[]>> = {
  cut: OPERATIONS.filter((operation) => operation !== "PutSnapshotBlock"),
  corrupt: ["GetSnapshotBlock"],
  checksum: ["GetSnapshotBlock", "PutSnapshotBlock"],
  "expired-token": ["GetSnapshotBlock", ...LISTS],
  "short-page": LISTS,
  "empty-page": LISTS,
};

/** Whether an action can strike calls of an operation. */
export function canStrike(action: FaultAction, operation: Operation): boolean {
  return STRUCK[action]?.includes(operation) ?? true;
}

export interface FaultRule {
  readonly action: FaultAction;
  /** All, unless given. */
  readonly operations?: readonly Operation[];
  /** All, unless given. */
  readonly snapshots?: readonly string[];
  /** First and last block index, inclusive: only gets and puts of these. */
  readonly blocks?: readonly [number, number];
  /** Share of matching calls that are hit, 0 to 1; all unless given. */
  readonly probability?: number;
  /** Start of the rule's own random sequence: the same seed hits the same calls in sequence. */
  readonly seed?: number;
  /** Matching calls that pass before the rule begins. */
  readonly skip?: number;
  /** Calls that are hit at most; unlimited unless given. */
  readonly count?: number;
  readonly ms?: number;
  readonly jitterMs?: number;
  readonly perSecond?: number;
  readonly burst?: number;
  readonly name?: string;
  readonly status?: number;
  readonly reason?: string;
  readonly message?: string;
  readonly bytes?: number;
  readonly clean?: boolean;
  readonly entries?: number;
}

/** Numbers that need not be whole. */
const AMOUNTS = ["probability", "ms", "jitterMs", "perSecond", "burst"];
const COUNTS = ["seed", "skip", "count", "status", "bytes", "entries"];
const TEXTS = ["name", "reason", "message"];
const OTHERS = ["action", "operations", "snapshots", "blocks", "clean"];
/** Words that mean something to these actions only. */
const WORDS_OF: Readonly<Record<string, readonly FaultAction[]>> = {
  ms: ["latency"],
  jitterMs: ["latency"],
  perSecond: ["rate"],
  burst: ["rate"],
  name: ["error", "rate"],
  status: ["error", "rate"],
  reason: ["error", "rate"],
  message: ["error", "rate"],
  bytes: ["cut"],
  clean: ["cut"],
  entries: ["short-page"],
};
/** Longest delay, ms: an hour. */
const LONGEST_MS = 3600_000;

function fail(why: string): never {
  throw new Failure("EINVAL", `A fault rule is wrong: ${why}.`);
}

function isList<T>(value: unknown, test: (item: unknown) => item is T): value is T[] {
  return Array.isArray(value) && value.length > 0 && value.every(test);
}

const isText = (value: unknown): value is string => typeof value === "string";
const isAmount = (value: unknown): value is number => Number.isFinite(value) && Number(value) >= 0;
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && isAmount(value);
const isOperation = (value: unknown): value is Operation => OPERATIONS.includes(value as Operation);

function parseRule(value: unknown): FaultRule {
  if (typeof value !== "object" || value === null) fail("it must be a JSON object");
  const rule = value as Record<string, unknown>;
  for (const [key, item] of Object.entries(rule)) {
    if (AMOUNTS.includes(key)) {
      if (!isAmount(item)) fail(`${key} must be a number of 0 or more`);
    } else if (COUNTS.includes(key)) {
      if (!isCount(item)) fail(`${key} must be a whole number of 0 or more`);
    } else if (TEXTS.includes(key)) {
      if (!isText(item)) fail(`${key} must be text`);
    } else if (!OTHERS.includes(key)) {
      fail(`"${key}" is not a word of fault rules`);
    }
  }
  if (!ACTIONS.includes(rule.action as FaultAction)) {
    fail(`the action must be one of ${ACTIONS.join(", ")}`);
  }
  const action = rule.action as FaultAction;
  for (const word of Object.keys(rule)) {
    const actions = WORDS_OF[word];
    if (actions !== undefined && !actions.includes(action)) {
      fail(`${word} goes with ${actions.join(" and ")}, not with ${action}`);
    }
  }
  if (rule.operations !== undefined) {
    if (!isList(rule.operations, isOperation)) {
      fail(`operations must be a list out of ${OPERATIONS.join(", ")}`);
    }
    const spared = rule.operations.find((operation) => !canStrike(action, operation));
    if (spared !== undefined) fail(`${action} cannot strike ${spared}`);
  }
  if (rule.snapshots !== undefined && !isList(rule.snapshots, isText)) {
    fail("snapshots must be a list of snapshot ids");
  }
  if (rule.blocks !== undefined) {
    const { blocks } = rule;
    const isRange = isList(blocks, isCount) && blocks.length === 2 && blocks[0]! <= blocks[1]!;
    if (!isRange) fail("blocks must be a first and a last block index");
  }
  if (rule.clean !== undefined && typeof rule.clean !== "boolean") fail("clean is true or false");
  if (Number(rule.probability ?? 1) > 1) fail("probability is 0 to 1");
  if (rule.action === "rate" && !(Number(rule.perSecond) > 0)) fail("rate needs perSecond above 0");
  if (rule.action === "latency" && rule.ms === undefined) fail("latency needs ms");
  if (Number(rule.ms ?? 0) + Number(rule.jitterMs ?? 0) > LONGEST_MS) {
    fail(`ms and jitterMs are at most ${LONGEST_MS} together`);
  }
  if (rule.name !== undefined && !/^[A-Za-z0-9._#:-]{1,100}$/.test(String(rule.name))) {
    fail("name must be a word, such as ThrottlingException");
  }
  if (rule.status !== undefined && (Number(rule.status) < 400 || Number(rule.status) > 599)) {
    fail("status is 400 to 599");
  }
  return value as FaultRule;
}

/** The rules in a parsed JSON value: one rule or a list. @throws Failure EINVAL */
export function parseFaultRules(value: unknown): FaultRule[] {
  return (Array.isArray(value) ? value : [value]).map(parseRule);
}
