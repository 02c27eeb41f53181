import { useCallback, useEffect, useRef, useState } from "react";
import { ApiError } from "../api/client";
import { onKeyChange } from "../api/key";

export interface Polled<T> {
  data: T | null;
  error: ApiError | null;
  refresh: () => void;
}

/** Asks at once, then every `every` ms (null: only once), resting while the page is hidden. `key` names the question. */
export function usePoll<T>(key: string, ask: (signal: AbortSignal) => Promise<T>, every: number | null): Polled<T> {
  const [state, setState] = useState<{ key: string; data: T | null; error: ApiError | null }>({
    key,
    data: null,
    error: null,
  });
  const [round, setRound] = useState(0);
  const latest = useRef(ask);
  latest.current = ask;
  const refresh = useCallback(() => setRound((n) => n + 1), []);

  useEffect(() => onKeyChange(refresh), [refresh]);

  useEffect(() => {
    const abort = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    let asked = false;
    const tick = async (): Promise<void> => {
      if (!document.hidden || !asked) {
        asked = true;
        try {
          const data = await latest.current(abort.signal);
          if (!abort.signal.aborted) setState({ key, data, error: null });
        } catch (cause) {
          if (abort.signal.aborted) return;
          const error = cause instanceof ApiError ? cause : new ApiError(0, "client", String(cause));
          setState((old) => ({ key, data: old.key === key ? old.data : null, error }));
        }
      }
      if (every !== null && !abort.signal.aborted) timer = setTimeout(() => void tick(), every);
    };
    void tick();
    return () => {
      abort.abort();
      clearTimeout(timer);
    };
  }, [key, every, round]);

  return state.key === key ? { data: state.data, error: state.error, refresh } : { data: null, error: null, refresh };
}
