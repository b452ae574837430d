/**
 * A fault to order, as it is written in JSON: which calls (operations, snapshots, blocks), how many
 * of them (share, how many to let pass first, how many at most), and what happens to them. Rules are
 * checked whole when they come in, so that a misspelt word is a sentence and not a fault that never
 * strikes; and an action knows which operations it can strike at all (fault-table.ts).
 */
import { Failure } from "../common/failure.js";
import { OPERATIONS, type Operation } from "./call.js";
import { canStrike, FAULTS, type FaultAction } from "./fault-table.js";

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
  readonly perSnapshot?: boolean;
  readonly requests?: number;
  readonly minutes?: number;
  readonly name?: string;
  readonly status?: number;
  readonly reason?: string;
  readonly message?: string;
  readonly bytes?: number;
  readonly clean?: boolean;
  readonly entries?: number;
}

type Word = keyof FaultRule;

/** Numbers that need not be whole. */
const AMOUNTS: readonly Word[] = ["probability", "ms", "jitterMs", "perSecond", "burst"];
const COUNTS: readonly Word[] = ["seed", "skip", "count", "status", "bytes", "entries", "requests"];
const TEXTS: readonly Word[] = ["name", "reason", "message"];
const SWITCHES: readonly Word[] = ["clean", "perSnapshot"];
const OTHERS: readonly Word[] = ["action", "operations", "snapshots", "blocks", "minutes"];
/** Words that change the exception of any action that has one. */
const ERROR_WORDS: readonly Word[] = ["name", "status", "reason", "message"];
/** Words that choose calls, whatever happens to them. */
const CHOOSING: readonly Word[] = [
  "action",
  "operations",
  "snapshots",
  "blocks",
  "probability",
  "seed",
  "skip",
  "count",
];
/** Longest delay: an hour. */
const MAX_MS = 3600_000;
/** Largest difference between the clocks: a year. */
const MAX_MINUTES = 366 * 24 * 60;

function fail(why: string): never {
  throw new Failure("EINVAL", `A fault rule is wrong: ${why}.`);
}

function isList<T>(value: unknown, test: (item: unknown) => item is T): value is T[] {
  return Array.isArray(value) && value.length > 0 && value.every(test);
}

const isIn = (words: readonly Word[], word: string): boolean => words.includes(word as Word);
const isText = (value: unknown): value is string => typeof value === "string";
const isAmount = (value: unknown): value is number => Number.isFinite(value) && Number(value) >= 0;
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && isAmount(value);
const isOperation = (value: unknown): value is Operation => OPERATIONS.includes(value as Operation);

function parseRule(value: unknown): FaultRule {
  if (typeof value !== "object" || value === null) fail("it must be a JSON object");
  const rule = value as Record<string, unknown>;
  for (const [key, item] of Object.entries(rule)) {
    if (isIn(AMOUNTS, key)) {
      if (!isAmount(item)) fail(`${key} must be a number of 0 or more`);
    } else if (isIn(COUNTS, key)) {
      if (!isCount(item)) fail(`${key} must be a whole number of 0 or more`);
    } else if (isIn(TEXTS, key)) {
      if (!isText(item)) fail(`${key} must be text`);
    } else if (isIn(SWITCHES, key)) {
      if (typeof item !== "boolean") fail(`${key} is true or false`);
    } else if (!isIn(OTHERS, key)) {
      fail(`"${key}" is not a word of fault rules`);
    }
  }
  if (!Object.hasOwn(FAULTS, String(rule.action))) {
    fail(`the action must be one of ${Object.keys(FAULTS).join(", ")}`);
  }
  const action = rule.action as FaultAction;
  checkWords(action, Object.keys(rule));
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
  if (Number(rule.probability ?? 1) > 1) fail("probability is 0 to 1");
  if (action === "rate" && !(Number(rule.perSecond) > 0)) fail("rate needs perSecond above 0");
  if (action === "latency" && rule.ms === undefined) fail("latency needs ms");
  if (Number(rule.ms ?? 0) + Number(rule.jitterMs ?? 0) > MAX_MS) {
    fail(`ms and jitterMs are at most ${MAX_MS} together`);
  }
  const { minutes = 0 } = rule;
  if (!Number.isFinite(minutes) || Math.abs(Number(minutes)) > MAX_MINUTES) {
    fail(`minutes is a number from -${MAX_MINUTES} to ${MAX_MINUTES}`);
  }
  if (rule.name !== undefined && !/^[A-Za-z0-9._#:-]{1,100}$/.test(String(rule.name))) {
    fail("name must be a word, such as ThrottlingException");
  }
  if (rule.status !== undefined && (Number(rule.status) < 400 || Number(rule.status) > 599)) {
    fail("status is 400 to 599");
  }
  return value as FaultRule;
}

/** Words that mean something to an action, besides those that choose calls. */
export function wordsOf(action: FaultAction): readonly string[] {
  const { words = [], error } = FAULTS[action];
  return error === undefined ? words : [...new Set([...words, ...ERROR_WORDS])];
}

function checkWords(action: FaultAction, words: readonly string[]): void {
  const own = wordsOf(action);
  for (const word of words) {
    if (isIn(CHOOSING, word) || own.includes(word)) continue;
    const others = Object.keys(FAULTS).filter((other) =>
      wordsOf(other as FaultAction).includes(word),
    );
    fail(`${word} goes with ${others.join(", ")}, not with ${action}`);
  }
}

/** The rules in a parsed JSON value: one rule or a list. @throws Failure EINVAL */
export function parseFaultRules(value: unknown): FaultRule[] {
  return (Array.isArray(value) ? value : [value]).map(parseRule);
}
