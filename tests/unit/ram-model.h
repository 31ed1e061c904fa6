/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A guest's RAM as a test knows it: a random stream that sends it, page after page, some again, some turned to zeros, some as
 * differences; and readers of both kinds of files, written apart from src/stream, that say whether a file holds it.
 *
 * Thread: any, one at a time.
 */

#include "classic-stream.h"

#define RAM_MODEL_BLOCKS 3u

typedef struct {
  CsBlock blocks[RAM_MODEL_BLOCKS];
  guint8 *memory[RAM_MODEL_BLOCKS];
  guint64 n_pages, n_zero; /* items that were sent */
  gboolean footer, command, xbzrle;
} RamModel;

/* Memory of zeros. */
void ram_model_init (RamModel *model);
void ram_model_clear (RamModel *model);

/* A whole stream that ends in the memory that the model then has. The model's flags say what is in it. */
GByteArray *ram_model_stream (RamModel *model, GRand *random);

/* NULL if the file, length bytes with its QEVM at start, holds that memory; else what is wrong. */
char *ram_model_check_mapped (const RamModel *model, const guint8 *file, gsize length, gsize start);
/* The same of a classic stream. each_once: every page must be sent exactly once. */
char *ram_model_check_classic (const RamModel *model, const guint8 *stream, gsize length, gboolean each_once);
