/** The API key: given once in the address (`#key=…`) or typed in, then kept in this browser. */

const STORED = "fewstep.key";
const listeners = new Set<() => void>();
let refused = false;

export function takeKeyFromAddress(): void {
  const match = /(?:^#|&)key=([^&]+)/.exec(location.hash);
  if (!match?.[1]) return;
  setKey(decodeURIComponent(match[1]));
  history.replaceState(null, "", location.pathname + location.search);
}

export function currentKey(): string {
  return localStorage.getItem(STORED) ?? "";
}

export function setKey(key: string): void {
  localStorage.setItem(STORED, key);
  refused = false;
  listeners.forEach((tell) => tell());
}

export function refuseKey(): void {
  if (refused) return;
  refused = true;
  listeners.forEach((tell) => tell());
}

/** Asks for another key though none was refused. */
export const askForKey = refuseKey;

export function dismissKeyDialog(): void {
  refused = false;
  listeners.forEach((tell) => tell());
}

export function isKeyRefused(): boolean {
  return refused;
}

export function onKeyChange(tell: () => void): () => void {
  listeners.add(tell);
  return () => void listeners.delete(tell);
}
