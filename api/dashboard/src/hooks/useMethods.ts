import { get } from "../api/client";
import type { Method, Page } from "../api/types";
import { usePoll } from "./usePoll";

/** The distillation methods that this server knows; they do not change while it runs. */
export function useMethods(): Method[] | null {
  return usePoll("methods", (signal) => get<Page<Method>>("/v1/methods", signal), null).data?.data ?? null;
}
