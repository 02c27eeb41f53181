import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// In development the pages come from Vite and everything else from an API on its default port.
const api = "http://127.0.0.1:8700";

export default defineConfig({
  plugins: [react()],
  build: { sourcemap: false, outDir: "dist", emptyOutDir: true, assetsInlineLimit: 0 },
  server: { proxy: { "/v1": api, "/version": api } },
});
