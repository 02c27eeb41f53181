import { get } from "../api/client";
import type { Dataset, Page } from "../api/types";
import { usePoll } from "./usePoll";

const PATH = "/v1/datasets?limit=100";

/** The newest datasets, and a way to look again. */
export function useDatasets(): { datasets: Dataset[] | null; refresh: () => void } {
  const { data, refresh } = usePoll("datasets", (signal) => get<Page<Dataset>>(PATH, signal), null);
  return { datasets: data?.data ?? null, refresh };
}
