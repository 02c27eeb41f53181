import type { ApiError } from "../api/client";

/** An error in words. A refused key is not repeated here: the key dialog asks for another. */
export function Notice({ error }: { error: ApiError | null }) {
  if (!error || error.status === 401) return null;
  return (
    <div className="notice" role="alert">
      {error.message}
    </div>
  );
}
