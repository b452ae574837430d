/**
 * A fault as people write it on the command line: NAME, NAME=VALUE or NAME,word=value,…, such as
 * `unreadable=3,blocks=0-99`. It becomes the rule's JSON and is checked as such (fault-rule.ts).
 */
import { Failure } from "../common/failure.js";
import { type FaultRule, parseFaultRules } from "./fault-rule.js";
import { FAULTS, type FaultAction } from "./fault-table.js";

/**
 * @param text a value after the name is that of the fault's first own word, else of `count`; lists
 * are joined by `+`, blocks are `first-last`, and a word alone is `true`.
 * @throws Failure EINVAL
 */
export function parseFaultText(text: string): FaultRule {
  const pairs = text.split(",").map((pair): [string, string | undefined] => {
    const mark = pair.indexOf("=");
    return mark < 0 ? [pair, undefined] : [pair.slice(0, mark), pair.slice(mark + 1)];
  });
  const [action, value] = pairs.shift()!;
  if (value !== undefined) pairs.unshift([valueWord(action), value]);
  const rule: Record<string, unknown> = { action };
  for (const [word, item] of pairs) {
    if (Object.hasOwn(rule, word)) {
      throw new Failure("EINVAL", `The fault ${text} is wrong: it gives ${word} twice.`);
    }
    rule[word] = plain(word, item);
  }
  return parseFaultRules(rule)[0]!;
}

/** The word that `NAME=VALUE` sets. */
export function valueWord(action: string): string {
  const kind = Object.hasOwn(FAULTS, action) ? FAULTS[action as FaultAction] : undefined;
  return kind?.words?.[0] ?? "count";
}

function plain(word: string, text: string | undefined): unknown {
  if (text === undefined || text === "true") return true;
  if (text === "false") return false;
  if (word === "operations" || word === "snapshots") return text.split("+");
  if (word === "blocks") return text.split("-").map(numberIn);
  return numberIn(text);
}

/** What looks like a number is one: no name, reason or message does. */
function numberIn(text: string): number | string {
  return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text;
}
