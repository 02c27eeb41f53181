import { useRef, useState } from "react";
import type { FormEvent } from "react";

import { ApiError, post } from "../api/client";
import type { Endpoint, Student } from "../api/types";
import { navigate } from "../router";
import { Notice } from "./Notice";

/** Asks for a name and makes an endpoint of a student. */
export function DeployButton({ student, primary = false }: { student: Student; primary?: boolean }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [name, setName] = useState(student.name);
  const [withTeacher, setWithTeacher] = useState(true);
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);

  const submit = async (event: FormEvent): Promise<void> => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await post<Endpoint>("/v1/endpoints", { name, student: student.id, with_teacher: withTeacher });
      navigate("/endpoints");
    } catch (cause) {
      if (!(cause instanceof ApiError)) throw cause;
      setError(cause);
      setBusy(false);
    }
  };

  return (
    <>
      <button type="button" className={primary ? "button primary" : "button"} onClick={() => dialog.current?.showModal()}>
        Deploy
      </button>
      <dialog ref={dialog} aria-label={`Deploy ${student.name}`}>
        <form onSubmit={(event) => void submit(event)}>
          <h2>Deploy this student</h2>
          <p className="quiet small">
            It will answer the OpenAI images API as a model with this name.
          </p>
          <div className="field">
            <label htmlFor={`deploy-${student.id}`}>Endpoint name</label>
            <input id={`deploy-${student.id}`} required pattern="[a-z0-9][a-z0-9._\-]{0,62}" value={name}
              title="Lower-case letters, digits, dot, dash and underscore" maxLength={63}
              onChange={(event) => setName(event.target.value)} />
          </div>
          <label className="check">
            <input type="checkbox" checked={withTeacher} onChange={(event) => setWithTeacher(event.target.checked)} />
            Serve the teacher too, for comparison
          </label>
          <Notice error={error} />
          <div className="row">
            <button type="submit" className="button primary" disabled={busy}>Deploy</button>
            <button type="button" className="button bare" onClick={() => dialog.current?.close()}>Not now</button>
          </div>
        </form>
      </dialog>
    </>
  );
}
