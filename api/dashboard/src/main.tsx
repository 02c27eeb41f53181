import "uplot/dist/uPlot.min.css";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/layout.css";
import "./styles/controls.css";
import "./styles/jobs.css";
import "./styles/job.css";
import "./styles/pages.css";
import "./styles/webhooks.css";

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { takeKeyFromAddress } from "./api/key";
import { App } from "./App";

takeKeyFromAddress();
window.addEventListener("hashchange", takeKeyFromAddress);

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
