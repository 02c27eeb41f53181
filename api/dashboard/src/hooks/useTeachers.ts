import { get } from "../api/client";
import type { Page, Teacher } from "../api/types";
import { usePoll } from "./usePoll";

export function useTeachers(): Teacher[] | null {
  return usePoll("teachers", (signal) => get<Page<Teacher>>("/v1/teachers", signal), null).data?.data ?? null;
}
