/* What every unit test includes: cmocka wants these headers in this order. */
#ifndef OTPBRIDGE_TESTS_SUPPORT_H
#define OTPBRIDGE_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

#endif
