/**
 * Reads the text of an AWS configuration file as the AWS CLI does, which uses Python's configparser: names
 * and values are divided by `=` or `:`, names are not case-sensitive, whole lines are comments and nothing
 * else is, and a line indented deeper than its value's name goes on with that value. The SDK's own reader
 * takes the same files in another way (sections whose names hold a space are lost, for one).
 *
 * A file that is not understood is an error with the number of the line; its text stays out, because it may
 * hold a secret. Source: Python 3 configparser.RawConfigParser; botocore, configloader.py.
 */

/** Names in lower case. A value of several lines keeps its line breaks. */
export type Values = ReadonlyMap<string, string>;

export interface Section {
  readonly name: string;
  readonly values: Values;
}

/** What is wrong, and in which line (from 1), to follow "line 3 ". */
export class IniError extends Error {
  override readonly name = "IniError";
  readonly line: number;

  constructor(line: number, message: string) {
    super(message);
    this.line = line;
  }
}

/** Values of this section count in every other one, as configparser has it. */
const SHARED_SECTION = "DEFAULT";

/** @throws IniError */
export function parseIni(text: string): Section[] {
  const sections = new Map<string, Map<string, string>>();
  let values: Map<string, string> | undefined;
  let name: string | undefined;
  let indent = 0;
  text.split(/\r\n|\r|\n/).forEach((line, index) => {
    const content = line.trim();
    if (/^[#;]/.test(content)) return;
    if (content === "") {
      // An empty line inside a value belongs to it.
      if (name !== undefined) values?.set(name, `${values.get(name)}\n`);
      return;
    }
    const ownIndent = line.search(/\S/);
    if (values !== undefined && name !== undefined && ownIndent > indent) {
      values.set(name, `${values.get(name)}\n${content}`);
      return;
    }
    indent = ownIndent;
    const header = /^\[(.+)\]/s.exec(content);
    if (header !== null) {
      const section = header[1] as string;
      values = section === SHARED_SECTION ? sections.get(section) : undefined;
      if (values === undefined && sections.has(section)) {
        throw new IniError(index + 1, "begins a section a second time");
      }
      values ??= new Map();
      name = undefined;
      sections.set(section, values);
      return;
    }
    if (values === undefined) throw new IniError(index + 1, "comes before the first [section]");
    const parts = /^(.*?)\s*[=:]\s*(.*)$/s.exec(content);
    if (parts === null) throw new IniError(index + 1, "is neither a [section] nor a NAME = VALUE");
    name = (parts[1] as string).toLowerCase();
    if (name === "") throw new IniError(index + 1, "has no name before its value");
    if (values.has(name)) throw new IniError(index + 1, "sets a name a second time in its section");
    values.set(name, parts[2] as string);
  });
  const shared = sections.get(SHARED_SECTION) ?? new Map<string, string>();
  sections.delete(SHARED_SECTION);
  return [...sections].map(([section, own]) => ({
    name: section,
    values: trimmed(new Map([...shared, ...own])),
  }));
}

/** The empty lines at a value's end are not its own. */
function trimmed(values: Map<string, string>): Values {
  for (const [name, value] of values) values.set(name, value.replace(/\n+$/, ""));
  return values;
}

/** The lines below a name that has no value of its own: `ebs =` and, indented, `endpoint_url = …`. */
export function nestedValues(value: string | undefined): Values {
  const nested = new Map<string, string>();
  if (value === undefined || !value.startsWith("\n")) return nested;
  for (const line of value.split("\n")) {
    const at = line.indexOf("=");
    if (at > 0) nested.set(line.slice(0, at).trim(), line.slice(at + 1).trim());
  }
  return nested;
}

/**
 * Splits a section's name as a POSIX shell would: `profile "with space"` has two words.
 * @returns undefined where a quotation mark is left open.
 */
export function shellWords(text: string): string[] | undefined {
  const words: string[] = [];
  let word: string | undefined;
  const pattern = /\s+|"((?:\\.|[^"\\])*)"|'([^']*)'|\\(.)|([^\s"'\\]+)|(.)/gs;
  for (const [whole, double, single, escaped, plain, open] of text.matchAll(pattern)) {
    if (open !== undefined) return undefined;
    const part = double?.replace(/\\(["\\])/g, "$1") ?? single ?? escaped ?? plain;
    if (part !== undefined) {
      word = (word ?? "") + part;
    } else if (whole !== "" && word !== undefined) {
      words.push(word);
      word = undefined;
    }
  }
  if (word !== undefined) words.push(word);
  return words;
}
