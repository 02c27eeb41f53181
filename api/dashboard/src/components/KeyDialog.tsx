import { useEffect, useRef, useState, useSyncExternalStore } from "react";
import type { FormEvent } from "react";

import { currentKey, dismissKeyDialog, isKeyRefused, onKeyChange, setKey } from "../api/key";

/** Asks for the API key when the server refuses the one at hand. */
export function KeyDialog() {
  const refused = useSyncExternalStore(onKeyChange, isKeyRefused);
  const dialog = useRef<HTMLDialogElement>(null);
  const [typed, setTyped] = useState("");

  useEffect(() => {
    if (refused) dialog.current?.showModal();
    else dialog.current?.close();
  }, [refused]);

  const submit = (event: FormEvent): void => {
    event.preventDefault();
    setKey(typed.trim());
    setTyped("");
  };

  return (
    <dialog ref={dialog} aria-labelledby="key-title" onCancel={dismissKeyDialog}>
      <form onSubmit={submit}>
        <h2 id="key-title">API key</h2>
        <p className="quiet">
          This server needs a valid key. <code>fewstep up</code> prints one when it starts and keeps it in{" "}
          <code>.fewstep/api_key</code>. It stays in this browser.
        </p>
        <div className="field">
          <label htmlFor="key-input">Key</label>
          <input id="key-input" type="password" autoComplete="off" required value={typed}
            onChange={(event) => setTyped(event.target.value)} />
        </div>
        <div className="row">
          <button type="submit" className="button primary">Use this key</button>
          {currentKey() && (
            <button type="button" className="button bare" onClick={dismissKeyDialog}>Keep the present one</button>
          )}
        </div>
      </form>
    </dialog>
  );
}
