import { useEffect, useState } from "react";

import { ApiError, post } from "../api/client";
import type { Pointer, Validation } from "../api/types";

export interface Checked {
  validation: Validation | null;
  errors: Pointer[];
  failure: ApiError | null;
  /** Whether this is the answer about the spec as it is now. */
  current: boolean;
}

const PAUSE_MS = 350;

/** Asks the server about the spec when typing pauses; `ready` false leaves the last answer standing. */
export function useValidation(spec: string, ready: boolean): Checked {
  const [answer, setAnswer] = useState<Omit<Checked, "current"> & { spec: string }>({
    spec: "",
    validation: null,
    errors: [],
    failure: null,
  });

  useEffect(() => {
    if (!ready) return;
    const abort = new AbortController();
    const ask = async (): Promise<void> => {
      try {
        const validation = await post<Validation>("/v1/jobs:validate", JSON.parse(spec), abort.signal);
        setAnswer({ spec, validation, errors: [], failure: null });
      } catch (cause) {
        if (abort.signal.aborted) return;
        if (!(cause instanceof ApiError)) throw cause;
        const placed = cause.errors.length > 0;
        setAnswer({ spec, validation: null, errors: cause.errors, failure: placed ? null : cause });
      }
    };
    const timer = setTimeout(() => void ask(), PAUSE_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [spec, ready]);

  return { ...answer, current: answer.spec === spec };
}
