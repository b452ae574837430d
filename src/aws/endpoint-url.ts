/** What a URL must be so that requests can go there. Loaded for every `--help`, so it imports nothing. */

const MAX_SHOWN = 100;

/** @returns a sentence about what is wrong; undefined where requests can go there. */
export function endpointUrlProblem(text: string): string | undefined {
  // What comes before an @ may be a password.
  if (text.includes("@")) return "A name and password in it are not used: leave them out.";
  if (/^https?:\/\//i.test(text) && URL.canParse(text)) return undefined;
  const shown = JSON.stringify(text.slice(0, MAX_SHOWN));
  const isHost = /^[\w.:[\]-]+(?:\/(?!\/)[\w./-]*)?$/.test(text) && text.length <= MAX_SHOWN;
  const advice = isHost && URL.canParse(`http://${text}`) ? `: write http://${text}` : "";
  return `${shown} is not an http or https URL${advice}.`;
}
